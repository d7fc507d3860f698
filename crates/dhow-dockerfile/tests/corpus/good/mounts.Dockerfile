FROM alpine AS tools
FROM alpine
RUN --mount=target=. --mount=from=tools,source=/bin,target=/tools,ro true
RUN --mount=type=bind,src=a,dst=/a,rw --mount=type=tmpfs,target=/t,size=64m true
RUN --mount=type=cache,id=x,destination=/c,from=tools,source=/etc,sharing=private,mode=0700,uid=1,gid=2 true
RUN --mount=Type=CACHE,Target=/u,ReadOnly=false true
