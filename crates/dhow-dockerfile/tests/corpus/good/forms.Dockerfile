FROM a
RUN ["/bin/echo", "a b", "\u00e9"]
RUN ['single', 'quotes']
RUN [ -f /etc/passwd ] && echo yes
RUN ["unterminated"
RUN ["a"] && b
CMD
CMD []
CMD echo "$HOME"
ENTRYPOINT ["a", ""]
ENTRYPOINT exec top -b
HEALTHCHECK --interval=5m --timeout=3s --start-period=1m30s --start-interval=500ms --retries=4 CMD curl -f http://localhost/ || exit 1
HEALTHCHECK CMD ["curl", "-f", "x"]
HEALTHCHECK NONE
COPY ["a b", "c", "/d/"]
COPY [a, /d]
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d --unpack=false https://example.com/a.tgz /
ADD --keep-git-dir https://github.com/moby/buildkit.git#v0.1 /bk
COPY --parents --exclude=*.md --exclude="a b" --link src/./x /dst
RUN --security=insecure --network=none --mount=type=secret,id=x,target="/a b" -- --not-a-flag
