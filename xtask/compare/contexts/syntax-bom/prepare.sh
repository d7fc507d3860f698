printf '\357\273\277FROM busybox\nENV A=1' > Dockerfile
