mkdir -p tree/sub
echo b > tree/sub/b
tar --sort=name --mtime=@1700000000 -C tree -cf - . | zstd -q -c > zstd.tar.zst
rm -r tree
