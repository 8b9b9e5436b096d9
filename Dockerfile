# The image of every node: head, workers and the pod that submits. Python, Ray and vLLM are the same everywhere.
#
#   docker build -t YOUR-REGISTRY/magpie-ray:0.1.0 .
#   docker push YOUR-REGISTRY/magpie-ray:0.1.0
#
# For Anyscale, whose nodes want some programs of their own in the image:
#   docker build --build-arg BASE=anyscale/ray:2.60.0-py311-cu130 -t YOUR-REGISTRY/magpie-ray:0.1.0-anyscale .
#
# Both bases bring the user `ray` (1000:100), its home and Python 3.11. torch comes with CUDA 13, so the driver of a
# GPU node must be 580 or newer; the compiler that vLLM's kernels need at run time is the base's.
ARG BASE=rayproject/ray:2.60.0-py311-gpu
FROM ${BASE}

# By number, so that Kubernetes can see that it is not root.
USER 1000
RUN mkdir /home/ray/magpie_ray
WORKDIR /home/ray/magpie_ray

# Ten gigabytes that change with requirements-gpu.txt alone: a layer before the code. The list is complete, and
# --no-deps keeps pip from adding to it.
COPY --chown=ray:users requirements-gpu.txt ./
RUN pip install --no-cache-dir --no-deps -r requirements-gpu.txt

COPY --chown=ray:users pyproject.toml README.md LICENSE ./
COPY --chown=ray:users magpie_ray magpie_ray
RUN pip install --no-cache-dir --no-deps . \
    && magpie-ray template builtin:tiny-chat > /dev/null

COPY --chown=ray:users jobs jobs
