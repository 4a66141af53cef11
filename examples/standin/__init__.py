"""The parts of the stand-in for OpenAI's API; `standin_openai.py` puts them together.

wire           ids, tokens, pages, errors: what every part says in the same way
script         what the assistant of the parcel company answers
server         HTTP and server-sent events
assistants     assistants, threads, messages      runs   their runs and steps
responses      responses and conversations        chat   chat completions
"""
