printf 'FROM busybox\r\nENV A=1 \\\r\n  B=2\r\nRUN echo one > /one && \\\r\n  echo two > /two\r\nLABEL a="b"\r\nCMD ["x"]\r\n' > Dockerfile
