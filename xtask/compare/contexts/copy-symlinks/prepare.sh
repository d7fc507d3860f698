mkdir -p tree/sub
echo target > target
echo file > tree/sub/file
ln -s target link
ln -s tree/sub dirlink
ln -s sub/file tree/inner
ln -s /etc/passwd tree/outside
ln -s ../../.. tree/up
ln -s nowhere tree/nowhere
ln -s sub tree/subdir
ln -s /target abs
