FROM a
ENV one=1 two="2 2" three='3 "3"' four=4\ 4 five="a\"b"
ENV old form with = and "quotes"
ENV eq=a=b=c empty= quoted=""
LABEL "com.example.a b"="v w" $k=$v
LABEL legacy value
ARG x y=1 z="a b"
EXPOSE 80/tcp  443 8000-8010/udp $PORT
VOLUME /a	/b
VOLUME ["/c d", "/e"]
USER  app:grp 
WORKDIR  a b/c 
STOPSIGNAL SIGQUIT
MAINTAINER Some One <one@example.com>
ONBUILD ADD . /app/src
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
