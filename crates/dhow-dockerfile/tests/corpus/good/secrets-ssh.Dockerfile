FROM alpine
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc,required=true,mode=0400,uid=0,gid=0 cat /root/.npmrc
RUN --mount=type=secret,id=token,env=TOKEN sh -c 'echo "$TOKEN" | wc -c'
RUN --mount=type=secret,target=/run/key true
RUN --mount=type=ssh,id=default,required git clone git@example.com:a/b.git
RUN --mount=type=ssh true
