# docker build -t unsee . && docker run --rm --gpus all -v "$PWD/runs:/work/runs" unsee erase church
# TORCH is the index of PyTorch's builds: .../whl/cpu gives a smaller image without CUDA.
FROM python:3.13-slim
ARG TORCH=https://download.pytorch.org/whl/cu128
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN pip install --no-cache-dir --index-url "$TORCH" "$(grep '^torch==' constraints.txt)" \
 && pip install --no-cache-dir --constraint constraints.txt . \
 && rm -rf /src
RUN useradd --create-home unsee && mkdir -p /work/runs && chown -R unsee /work
USER unsee
WORKDIR /work
ENTRYPOINT ["unsee"]
