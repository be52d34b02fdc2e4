# Both engines of `softprompt serve`, on a CPU: docker build -f deploy/docker/gateway.Dockerfile -t softprompt-gateway .
FROM python:3.11-slim
# glibc's allocator keeps free pages between the blocks of requests of many lengths; jemalloc gives them back
# a pinned version would be gone from Debian's mirrors with its next update
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libjemalloc2 && rm -rf /var/lib/apt/lists/*
ENV LD_PRELOAD=libjemalloc.so.2
# no git in here, so the version is given: --build-arg VERSION=X.Y.Z
ARG VERSION=
COPY pyproject.toml constraints.txt README.md LICENSE /opt/softprompt/
COPY src /opt/softprompt/src
COPY examples/softprompt_demo /opt/softprompt/examples/softprompt_demo
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' /opt/softprompt/constraints.txt)" \
    && SETUPTOOLS_SCM_PRETEND_VERSION="${VERSION#v}" pip install --no-cache-dir -c /opt/softprompt/constraints.txt "/opt/softprompt[gateway]"
# the user below has no home; mount a volume here to keep models that are downloaded
RUN mkdir -m 1777 /cache
ENV SOFTPROMPT_CACHE=/cache HF_HOME=/cache/hub
USER 10001
EXPOSE 8000
ENTRYPOINT ["softprompt"]
CMD ["serve", "--config", "/config/serve.yaml"]
