FROM alpine
RUN <<-EOT
		echo tabs
	  echo kept
	EOT
COPY <<-"EOF" /a
	$literal
	EOF
ADD <<EOF /b
${expanded:-x}
EOF
ONBUILD COPY <<EOF /c
later
EOF
