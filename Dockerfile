# One image for every process of Fovea: the API and the workers differ in their command only.

FROM python:3.13-slim AS dependencies
# The installer, of the version that the Makefile pins.
ARG UV_VERSION=0.13.9
# Which PyTorch wheels uv takes: empty for the package index's own, which bring CUDA along, or cpu, cu130, ...
ARG TORCH_BACKEND=""
ENV UV_COMPILE_BYTECODE=1 \
    UV_CACHE_DIR=/var/cache/uv \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=1 \
    VIRTUAL_ENV=/opt/venv
RUN python3 -m pip install --no-cache-dir --root-user-action=ignore uv==${UV_VERSION} \
    && uv venv ${VIRTUAL_ENV}
# Nothing of the code is here yet, so a change of the code leaves these gigabytes alone. Of the extras only int8:
# a container has no use for development tools, the demo's data and the embedded Redis.
COPY pyproject.toml constraints.txt /src/
RUN --mount=type=cache,target=/var/cache/uv \
    uv pip install ${TORCH_BACKEND:+--torch-backend "${TORCH_BACKEND}"} \
        --constraint /src/constraints.txt --requirements /src/pyproject.toml --extra int8

FROM dependencies AS package
COPY README.md LICENSE /src/
COPY models /src/models
COPY workers /src/workers
COPY app /src/app
RUN --mount=type=cache,target=/var/cache/uv \
    uv pip install --no-deps --build-constraint /src/constraints.txt --target /opt/fovea /src \
    && rm /opt/fovea/.lock

FROM python:3.13-slim
# Letters for labels: those of Chinese, Japanese and Korean in 5 MB, of all other living scripts in 43 MB; and what Pillow
# needs to join Arabic ones and to write from right to left.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends fonts-noto-core fonts-wqy-microhei libfribidi0 \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 fovea \
    && useradd --uid 10001 --gid fovea --no-create-home --home-dir /data --shell /usr/sbin/nologin fovea \
    && install --directory --owner fovea --group fovea /data
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=package /opt/fovea /opt/fovea
# The root file system may be read-only: /data and /tmp are all that is written to.
ENV PATH=/opt/fovea/bin:/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/fovea \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    FOVEA_HOME=/data \
    FOVEA_HOST=0.0.0.0 \
    FOVEA_PORT=8000
WORKDIR /opt/fovea
VOLUME ["/data"]
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['FOVEA_PORT'] + '/healthz', timeout=4)"]
CMD ["fovea", "serve"]
