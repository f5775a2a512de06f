# A CPU image: docker build -t histofeat . && docker run --rm -v "$PWD:/data" histofeat compare idc -o report
# This file has never been run: its two pip commands were tried outside a container, on Python 3.12.
FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --quiet --no-deps --wheel-dir /dist .
# The versions of the lock without its hashes: the image holds a part of its packages.
RUN sed -E '/^[a-z0-9]/!d; s/ *\\$//' requirements.lock > /dist/constraints.txt

FROM python:3.12-slim
COPY --from=build /dist /dist
RUN pip install --quiet --no-cache-dir --constraint /dist/constraints.txt /dist/*.whl && rm -r /dist
RUN useradd --create-home --uid 1000 histofeat
USER histofeat
ENV MPLBACKEND=Agg
# Kernels are compiled once, into the image.
RUN histofeat doctor --warm-up
WORKDIR /data
ENTRYPOINT ["histofeat"]
CMD ["--help"]
