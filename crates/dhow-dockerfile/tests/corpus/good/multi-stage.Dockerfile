# syntax=docker/dockerfile:1
ARG GO_VERSION=1.22
ARG BASE
FROM --platform=$BUILDPLATFORM golang:${GO_VERSION}-alpine AS build
ARG TARGETOS TARGETARCH=amd64
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod --network=default go mod download
COPY . .
RUN GOOS=$TARGETOS go build -o /out/app ./cmd/app

FROM build as test
RUN go test ./...

FROM scratch
COPY --from=build --chown=65534:65534 --chmod=0755 /out/app /app
COPY --from=1 --link=false ["/etc/my file", "/etc/"]
USER 65534:65534
ENTRYPOINT ["/app"]
