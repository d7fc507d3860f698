FROM alpine
COPY ${src#*/} ${dst%%/*} ${a/b/c} ${a//b/c} /x
ENV a=${b:?needed} c=${d?} e=${f+g}
