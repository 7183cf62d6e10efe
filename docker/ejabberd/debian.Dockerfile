# Debian's ejabberd, laid out as the official image is: the directories, the user and its number.
ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE}
RUN groupadd --system --gid 9000 ejabberd \
    && useradd --system --uid 9000 --gid ejabberd --home-dir /opt/ejabberd --shell /usr/sbin/nologin ejabberd \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ejabberd \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/* /etc/ejabberd /var/lib/ejabberd \
    && install -d -o ejabberd -g ejabberd /opt/ejabberd \
        /opt/ejabberd/conf /opt/ejabberd/database /opt/ejabberd/logs \
    && echo '{lookup, [file, native]}.' > /opt/ejabberd/conf/inetrc
ENV CONFIG_DIR=/opt/ejabberd/conf \
    SPOOL_DIR=/opt/ejabberd/database \
    LOGS_DIR=/opt/ejabberd/logs \
    ERLANG_NODE_ARG=ejabberd@localhost \
    HOME=/opt/ejabberd
USER ejabberd
WORKDIR /opt/ejabberd
ENTRYPOINT ["ejabberdctl"]
CMD ["foreground"]
