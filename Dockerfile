# bodyfit in a container: the gRPC server, and everything else that the command does.
#
#   docker build -t bodyfit .
#   docker build -t bodyfit --build-arg TORCH_ARGS="--index-url URL" .    # torch from an index of CPU wheels: far smaller
#   docker build -t bodyfit:cuda --target cuda .                          # fits on NVIDIA GPUs (docs/gpu.md)
#
# The kernels are compiled at the first start, which takes a minute or two, into the volume /var/cache/bodyfit; readiness waits for
# that. `docker run -v bodyfit-kernels:/var/cache/bodyfit bodyfit bodyfit warmup` does it beforehand; for a GPU, on the machine that
# has it, `docker run --gpus all -v bodyfit-kernels:/var/cache/bodyfit bodyfit:cuda bodyfit warmup --device cuda`.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
ARG TORCH_ARGS=""
RUN python -m venv /opt/venv
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY constraints.txt ./
# torch (for the renderer and its examples) by itself and first: chosen by its own index, it is not exchanged by what follows
RUN /opt/venv/bin/pip install --constraint constraints.txt ${TORCH_ARGS} torch
COPY pyproject.toml README.md LICENSE ./
COPY models ./models
COPY protos ./protos
COPY service ./service
COPY bodyfit ./bodyfit
RUN /opt/venv/bin/pip install --constraint constraints.txt ".[service,otel,render,video]" && /opt/venv/bin/pip check

# The same and what compiles kernels for a GPU. torch has to be a build with CUDA, as pip's usual one for Linux is: no TORCH_ARGS
FROM build AS build-cuda
RUN /opt/venv/bin/pip install --constraint constraints.txt ".[cuda]" && /opt/venv/bin/pip check \
    && /opt/venv/bin/python -c "import sys, torch; sys.exit(None if torch.version.cuda else 'this torch knows no CUDA')"

FROM ${PYTHON} AS runtime
# Open3D's library is linked against these, and torch against OpenMP
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
       libegl1 libgl1 libgomp1 libidn2-0 libudev1 libusb-1.0-0 libx11-6 \
    && rm -rf /var/lib/apt/lists/*
# 1777: whoever the container is run as (--user) may compile into the volume
RUN groupadd --gid 10001 bodyfit \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin bodyfit \
    && mkdir -p /var/cache/bodyfit /models /out \
    && chmod 1777 /var/cache/bodyfit /out
COPY examples /opt/bodyfit/examples
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=PASSIVE \
    NUMBA_CACHE_DIR=/var/cache/bodyfit \
    BODYFIT_MODELS=/models
WORKDIR /opt/bodyfit
VOLUME ["/var/cache/bodyfit"]
USER 10001:10001
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
# compiling is no illness: what fails in the first minutes does not count
HEALTHCHECK --interval=15s --timeout=5s --start-period=300s --start-interval=5s --retries=3 \
    CMD ["python", "-m", "bodyfit_service.probe"]
CMD ["bodyfit", "serve"]

# The driver and its libraries are the host's: the NVIDIA container toolkit puts them in, as these two variables ask
FROM runtime AS cuda
COPY --from=build-cuda /opt/venv /opt/venv
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    BODYFIT_DEVICE=cuda \
    CUDA_CACHE_PATH=/var/cache/bodyfit/driver

# What is built where no target is named
FROM runtime
COPY --from=build /opt/venv /opt/venv
