import { promisify } from "node:util"

import { Body, Controller, Get, HttpCode, Post, Req, Session } from "@nestjs/common"
import type { Request } from "express"

declare module "express-session" {
  interface SessionData {
    visits: number
    user: string
  }
}

@Controller()
export class AccountController {
  @Get()
  visit(@Session() session: Request["session"]) {
    session.visits = (session.visits ?? 0) + 1
    return { visits: session.visits, user: session.user ?? null }
  }

  @Post("sign-in")
  @HttpCode(200)
  async signIn(@Req() request: Request, @Body() body: { name?: string }) {
    // A new id at sign-in, so that an id planted before the sign-in is worthless.
    await promisify(request.session.regenerate).call(request.session)
    request.session.user = String(body?.name ?? "guest")
    return { user: request.session.user }
  }

  @Post("sign-out")
  @HttpCode(200)
  async signOut(@Req() request: Request) {
    await promisify(request.session.destroy).call(request.session)
    return {}
  }
}
