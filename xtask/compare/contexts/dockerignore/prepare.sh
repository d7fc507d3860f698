mkdir -p docs/deep node_modules/x build/keep build/drop logs/sub .git a/b/c
for f in docs/README.md docs/other.md docs/deep/README.md docs/deep/x.md node_modules/x/index.js build/keep/file build/drop/file build/top \
    logs/x.log logs/sub/y.log top.log .git/config a/b/c/secret a/b/c/public a/secret temp1 temp22 '#literal' keep.tmp drop.tmp; do
    echo "$f" > "$f"
done
cat > .dockerignore <<'END'
# a comment
Dockerfile
.git
/node_modules/
**/*.log
!logs/sub/y.log
build
!build/keep
docs/*.md
!docs/README.md
temp?
  *.tmp  
!keep.tmp
**/secret

./a/b/../b/c/public
END
