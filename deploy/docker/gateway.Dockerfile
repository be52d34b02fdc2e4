# The gateway, on a CPU: docker build -f deploy/docker/gateway.Dockerfile -t softprompt-gateway .
FROM python:3.11-slim
COPY pyproject.toml constraints.txt README.md LICENSE /opt/softprompt/
COPY src /opt/softprompt/src
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' /opt/softprompt/constraints.txt)" \
    && pip install --no-cache-dir -c /opt/softprompt/constraints.txt "/opt/softprompt[gateway]"
USER 10001
ENTRYPOINT ["softprompt"]
