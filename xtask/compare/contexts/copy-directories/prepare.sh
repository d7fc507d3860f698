mkdir -p tree/sub/deep tree/empty
chmod 700 tree/empty
chmod 750 tree/sub
echo a > tree/a
echo b > tree/sub/b
echo c > tree/sub/deep/c
echo passwd > tree/sub/notexec
