mkdir -p tree
mkfifo tree/fifo
mknod tree/null c 1 3
mknod -m 600 tree/block b 7 200
echo x > tree/attribute
setfattr -n user.comment -v text tree/attribute
tar --sort=name --mtime=@1700000000 --xattrs -C tree -cf special.tar .
rm -r tree
