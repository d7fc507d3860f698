mkdir -p a/b c
echo 1 > a/b/kept
echo 2 > a/b/dropped
echo 3 > c/dropped
echo 4 > top
cat > .dockerignore <<'END'
*
!a/b/kept
!Dockerfile
END
