"use strict"

const { connectRedis, RedisStore, RedisStoreError } = require("./lib/classes.js")

module.exports = Object.assign(connectRedis, { RedisStore, RedisStoreError, default: RedisStore })
Object.defineProperty(module.exports, "__esModule", { value: true })
