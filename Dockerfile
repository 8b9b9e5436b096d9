# The image of every node. Python and Ray are the same everywhere; the head and the pod that submits need no CUDA.
#
#   docker build -t YOUR-REGISTRY/magpie-ray:0.1.0 .
#   docker build --build-arg BASE=rayproject/ray:2.60.0-py311 --build-arg REQUIREMENTS=requirements-head.txt \
#     -t YOUR-REGISTRY/magpie-ray:0.1.0-head .
#   docker push YOUR-REGISTRY/magpie-ray:0.1.0
#
# The first serves as a head, too. For Anyscale, whose nodes want some programs of their own in the image:
#   docker build --build-arg BASE=anyscale/ray:2.60.0-py311-cu130 -t YOUR-REGISTRY/magpie-ray:0.1.0-anyscale .
#
# All bases bring the user `ray` (1000:100), its home and Python 3.11. torch comes with CUDA 13, so the driver of a
# GPU node must be 580 or newer; the compiler that vLLM's kernels need at run time is the base's. A tag may move: give
# the base by digest, BASE=rayproject/ray@sha256:..., for an image that can be built again.
ARG BASE=rayproject/ray:2.60.0-py311-gpu
FROM ${BASE}
ARG REQUIREMENTS=requirements-gpu.txt

# By number, so that Kubernetes can see that it is not root.
USER 1000
RUN mkdir /home/ray/magpie_ray
WORKDIR /home/ray/magpie_ray

# Ray would tell its makers each hour how it is used.
ENV RAY_USAGE_STATS_ENABLED=0

# Ten gigabytes that change with the list alone: a layer before the code. The list is complete, and --no-deps keeps pip
# from adding to it; with --require-hashes pip takes no other file than the one that was resolved.
COPY --chown=ray:users ${REQUIREMENTS} ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r "${REQUIREMENTS}"

COPY --chown=ray:users pyproject.toml README.md LICENSE ./
COPY --chown=ray:users magpie_ray magpie_ray
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && magpie-ray template builtin:tiny-chat > /dev/null

COPY --chown=ray:users jobs jobs

# --build-arg REVISION="$(git rev-parse HEAD)"; here, as every RUN behind it would be made again for each.
ARG REVISION=unknown

LABEL org.opencontainers.image.title="magpie-ray" \
      org.opencontainers.image.description="Build Magpie datasets at scale: vLLM engines in Ray actors" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
