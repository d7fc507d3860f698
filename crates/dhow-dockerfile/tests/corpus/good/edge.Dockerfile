   # indented comment
FROM   scratch   AS   x.y_z-1
	RUN	tabs	between	
COPY	a	b
fRoM x.y_z-1
rUn ls # not a comment
