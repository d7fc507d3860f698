FROM alpine
RUN echo hi # the shell's comment
RUN echo "# no" \
# dropped
    && true
LABEL a="#x" b=#y
ENV C #z
