# first
  # indented

# A describes A
# still
ARG A=1
	# before a tab
	FROM alpine
