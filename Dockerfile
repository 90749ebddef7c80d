# CPU:  docker build --target cpu -t retrieval .
# GPU:  docker build --target gpu -t retrieval:gpu .        (run it with --gpus all)
# Page: docker run -p 127.0.0.1:7860:7860 -v "$PWD:/work" retrieval serve idx --host 0.0.0.0
# Index in the container too: an index keeps the absolute paths of its photos.
FROM python:3.11-slim AS base
RUN useradd --create-home user && mkdir /work && chown user /work
COPY . /opt/retrieval
WORKDIR /opt/retrieval

# Of the page; run other commands with --no-healthcheck.
HEALTHCHECK CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/livez', timeout=5)"]

FROM base AS cpu
RUN pip install --no-cache-dir -e ".[cpu,distill,demo]"
USER user
WORKDIR /work
ENTRYPOINT ["retrieval"]
CMD ["--help"]

FROM base AS gpu
RUN pip install --no-cache-dir -e ".[gpu,distill,demo]"
USER user
WORKDIR /work
ENTRYPOINT ["retrieval"]
CMD ["--help"]
