FROM --platform=linux/arm64/v8 alpine AS a
FROM --platform=$BUILDPLATFORM alpine
FROM --platform="${TARGETOS}/${TARGETARCH}" alpine
