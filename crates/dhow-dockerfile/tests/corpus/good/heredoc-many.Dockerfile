FROM alpine
RUN <<A cat - && cat 3<<B
first
A
second
B
RUN <<FILE1 cat > file1 && <<FILE2 cat > file2
I am
first
FILE1
I am
second
FILE2
COPY <<robots.txt <<humans.txt /usr/share/nginx/html/
User-agent: *
robots.txt
people
humans.txt
