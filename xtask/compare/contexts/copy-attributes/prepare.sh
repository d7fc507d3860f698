mkdir -p tree/dir
echo x > tree/user
setfattr -n user.comment -v "some text" tree/user
setfattr -n user.dir -v 1 tree/dir
echo x > tree/capability
setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 tree/capability
