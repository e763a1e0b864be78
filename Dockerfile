# docker build --tag rela .                                     with CUDA
# docker build --tag rela:cpu --build-arg TORCH=cpu .           without
# docker run --gpus all --shm-size 1g --user "$(id -u):$(id -g)" --volume "$PWD:/data" rela convert images
FROM python:3.12-slim-bookworm

# FFCV is compiled against OpenCV and libjpeg-turbo
RUN apt-get update && apt-get install -y --no-install-recommends \
        g++ pkg-config libopencv-dev libturbojpeg0-dev && \
    rm -rf /var/lib/apt/lists/*

# torch first: this layer is by far the largest, and changes the least
ARG TORCH=cuda
RUN if [ "$TORCH" = cpu ]; then index="--index-url https://download.pytorch.org/whl/cpu"; fi && \
    pip install --no-cache-dir ${index:-} "torch>=2.10" "torchvision>=0.25"

COPY . /src
RUN pip install --no-cache-dir "/src[clip,hf,report,timm]" && rm -rf /src

# any user may run it; kernels and weights are kept beside the data
ENV HOME=/data/.home RELA_WORKSPACE=/data/workspace
WORKDIR /data
ENTRYPOINT ["rela"]
CMD ["--help"]
