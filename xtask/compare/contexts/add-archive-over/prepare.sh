mkdir -p tree/dir
echo new > tree/file
echo new > tree/dir/added
chown 5:6 tree/dir
mkdir tree/link
echo inside > tree/link/inside
tar --sort=name --mtime=@1700000000 -C tree -cf over.tar dir file link
rm -r tree
