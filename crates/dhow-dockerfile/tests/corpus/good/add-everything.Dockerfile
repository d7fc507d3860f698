FROM alpine
ADD https://example.com/a.tar.gz /tmp/
ADD --checksum=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef https://example.com/b /b
ADD --keep-git-dir=true https://github.com/moby/buildkit.git#v0.10.1:docs /src
ADD --unpack=false local.tar.xz /archives/
ADD --unpack https://example.com/c.tgz /c
ADD --chown=1000:1000 --chmod=755 --link --exclude=*.md --exclude=**/tests . /app
ADD ["with space.txt", "/dir with space/"]
