# The image: one static binary, called `wale` and `wal-e`, the public CA roots, and in /usr/share/doc/wale the
# licences of what the binary is made of and its bill of materials (CycloneDX). Nothing else:
# no shell, no libc, no package to patch. `make image` lays out the folder this file copies
# (scripts/image.sh): the binary is built outside, so that the image needs no toolchain.
FROM scratch
COPY rootfs/ /
ENV PATH=/usr/local/bin
EXPOSE 5000
# Runs as any uid, with a read-only root file system: wale writes only to the data directory, the WAL
# directory and, with WALE_FILE_PREFIX, the archive.
HEALTHCHECK --interval=5s --timeout=5s --start-period=24h CMD ["wale", "client", "ready"]
ENTRYPOINT ["wale"]
CMD ["serve"]
