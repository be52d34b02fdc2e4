# Stock vLLM with the connector beside it: docker build -f deploy/docker/vllm.Dockerfile -t softprompt-vllm .
FROM vllm/vllm-openai:v0.32.0
COPY connectors/vllm /opt/softprompt-vllm
RUN pip install --no-cache-dir --no-deps /opt/softprompt-vllm
