# docker build -t unsee . && docker run --rm --gpus all -v "$PWD/runs:/home/unsee/runs" unsee erase church
# TORCH is another index of PyTorch's builds than PyPI, such as that of the builds without CUDA, which are smaller.
FROM python:3.13-slim
ARG TORCH=
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN pip install --no-cache-dir ${TORCH:+--index-url "$TORCH"} "$(grep '^torch==' constraints.txt)" \
 && pip install --no-cache-dir --constraint constraints.txt . \
 && rm -rf /src
RUN useradd --create-home unsee && install -d -o unsee /home/unsee/runs
USER unsee
WORKDIR /home/unsee
ENTRYPOINT ["unsee"]
