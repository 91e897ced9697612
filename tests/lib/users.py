"""Being another user, really: with no capability, and no group but those that are named."""
import json
import os
import signal

from lib.check import check


def as_user(uid, act, *arguments, groups=()):
    """What act(...) returns (JSON) in a process of this user."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.close(reader)
        try:
            os.setgroups(list(groups))
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            answer = json.dumps(act(*arguments))
        except BaseException as e:  # the parent tells of it
            answer = json.dumps({"failed": "%s: %s" % (type(e).__name__, e)})
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as f:
        answer = f.read()
    os.waitpid(child, 0)
    check(answer, "the process of user %d has died" % uid)
    answer = json.loads(answer)
    if isinstance(answer, dict) and "failed" in answer:
        raise AssertionError("as user %d: %s" % (uid, answer["failed"]))
    return answer
