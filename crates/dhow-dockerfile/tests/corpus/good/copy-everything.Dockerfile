FROM alpine AS a
FROM alpine
COPY --parents a/b/./c/*.txt x/**/y /dst/
COPY --exclude=*.log --exclude=!keep.log src/ /src/
COPY --link=false --parents=true --from=a /etc/passwd /etc/
COPY --from=nginx:latest /etc/nginx/nginx.conf /nginx.conf
COPY --chown=$U:${G:-users} hom* /mydir/
COPY hom?.txt arr[[]0].txt "/quoted" /relative/./path/
COPY ["a", "b", "/c/"]
