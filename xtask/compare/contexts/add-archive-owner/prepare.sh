mkdir -p tree/sub
echo a > tree/sub/a
chown -R 12:34 tree
tar --sort=name --mtime=@1700000000 -C tree -cf owned.tar .
tar --sort=name --mtime=@1700000000 -C tree -cf implied.tar sub/a
tar --sort=name --mtime=@1700000000 -C tree -cf dots.tar ./sub/../sub/a
rm -r tree
