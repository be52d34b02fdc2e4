"""`make audit`: pip-audit's findings, or a sentence where its source of vulnerabilities cannot be reached.

python .ci/audit.py PATH_OF_PIP_AUDIT SITE_PACKAGES
"""

from __future__ import annotations

import json
import subprocess
import sys


def verdict(report: str, trouble: str) -> tuple[int, list[str]]:
    """The exit code and the lines for a report in JSON; one without any audited package is no clean bill."""
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, LookupError, TypeError):
        reason = (trouble.strip().splitlines() or ["it gave no report"])[-1]
        return 0, [f"NO AUDIT: pip-audit could not reach its source: {reason}"]
    audited = [package for package in packages if "vulns" in package and "skip_reason" not in package]
    if not audited:
        return 0, [f"NO AUDIT: its source knows none of the {len(packages)} packages that are installed here"]
    lines = [
        f"{package['name']} {package['version']}: {hit['id']}, "
        f"fixed in {', '.join(hit['fix_versions']) or 'none'}"
        for package in audited
        for hit in package["vulns"]
    ]
    summary = f"{len(audited)} of {len(packages)} packages audited, {len(lines)} vulnerabilities"
    return int(bool(lines)), [*lines, summary]


def main(program: str, folder: str) -> int:
    """Run pip-audit and print the verdict."""
    command = [program, "--path", folder, "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        code, lines = verdict(done.stdout, done.stderr)
    except subprocess.TimeoutExpired:
        code, lines = 0, ["NO AUDIT: pip-audit did not answer within five minutes"]
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
