FROM alpine
RUN <<EOF
#!/usr/bin/env sh
echo hello
EOF
RUN cat <<< word
RUN echo '<<EOF' "<<EOF"
RUN echo after
