mkdir tree
mkfifo tree/fifo
mknod tree/null c 1 3
echo x > tree/file
