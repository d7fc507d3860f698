mkdir -p tree/sub tree/private dir
echo a > tree/a
echo b > tree/sub/b
chmod 4750 tree/sub/b
chown 12:34 tree/sub/b tree/sub
chmod 700 tree/private
ln -s a tree/link
ln -s /etc/passwd tree/absolute
ln tree/a tree/hard
tar --sort=name --mtime=@1700000000 -C tree -cf plain.tar .
gzip -nk -c plain.tar > gzip.tar.gz
cp gzip.tar.gz misnamed.txt
xz -k -c plain.tar > xz.tar.xz
bzip2 -k -c plain.tar > bzip2.tar.bz2
cp plain.tar dir/inside.tar
rm -r tree
