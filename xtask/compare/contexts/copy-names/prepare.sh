mkdir names
cd names
touch 'with space' ./-dash 'ü' 'tab	inside' 'new
line' 'quote"' "single'" 'back\slash' '$dollar' '*star' '#hash' '%percent' '日本語' ' leading' 'trailing '
long=long-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
mkdir -p $long/$long/$long
echo deep > $long/$long/$long/$long
ln -s $long/$long/$long $long/link
touch $long$long
