FROM debian:12
RUN <<EOF
set -ex
# not a comment for the builder
apt-get update
EOF
RUN <<-"SCRIPT"
	#!/usr/bin/env python3
	print("tabs \
go")
	SCRIPT
RUN cat <<A > /a && cat <<'B' > /b
one $X
A
two
B
COPY <<hello.txt <<"raw.txt" /etc/
hello $NAME
hello.txt
$NOT
raw.txt
ADD << motd /etc/motd
hi
motd
ONBUILD RUN <<EOF
echo trigger
EOF
RUN echo $((1<<2)) <<<word
RUN ["cat", "<<EOF"]
CMD cat <<EOF
