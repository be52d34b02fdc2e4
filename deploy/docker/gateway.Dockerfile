# The gateway, on a CPU: docker build -f deploy/docker/gateway.Dockerfile -t softprompt-gateway .
FROM python:3.11-slim
# glibc's allocator keeps free pages between the blocks of requests of many lengths; jemalloc gives them back
# a pinned version would be gone from Debian's mirrors with its next update
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libjemalloc2 && rm -rf /var/lib/apt/lists/*
ENV LD_PRELOAD=libjemalloc.so.2
COPY pyproject.toml constraints.txt README.md LICENSE /opt/softprompt/
COPY src /opt/softprompt/src
COPY examples/softprompt_demo /opt/softprompt/examples/softprompt_demo
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' /opt/softprompt/constraints.txt)" \
    && pip install --no-cache-dir -c /opt/softprompt/constraints.txt "/opt/softprompt[gateway]"
USER 10001
ENTRYPOINT ["softprompt"]
