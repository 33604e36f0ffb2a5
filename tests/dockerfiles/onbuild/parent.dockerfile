FROM base
ENV PATH=/usr/src/bin:$PATH
COPY tools/ /usr/src/bin/
ONBUILD ARG NODE_ENV=production
ONBUILD ENV NODE_ENV $NODE_ENV
ONBUILD WORKDIR /usr/src/app
ONBUILD COPY package.json .
ONBUILD RUN sh /usr/src/bin/npm install
ONBUILD COPY . .
ONBUILD LABEL built.for="$NODE_ENV"
ONBUILD USER nobody
CMD [ "sh", "/usr/src/bin/npm", "start" ]
