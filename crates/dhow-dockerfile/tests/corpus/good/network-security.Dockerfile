FROM alpine
RUN --network=none true
RUN --network=host true
RUN --network=default --security=sandbox true
RUN --security=insecure mount
RUN --device=vendor.com/gpu=all,required nvidia-smi
