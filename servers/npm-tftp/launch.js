// Starts the server of the npm package tftp: unlike its own command, without a log and on IPv6 too.
// Called through server.yaml alone.
"use strict";

const [library, host, port, root] = process.argv.slice(2);
const tftp = require(library);

const server = tftp.createServer({ host, port: Number(port), root, blockSize: 65464, windowSize: 65535 });
// Without these listeners the first transfer that fails would end the whole server.
server.on("error", (error) => console.error(error.message));
server.on("request", (request) => request.on("error", (error) => console.error(error.message)));
server.listen();
