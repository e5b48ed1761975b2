"""Training on packed rows with DeepSpeed: the library behind the steps `train-worker` and `train`.

Nothing here imports torch, transformers or deepspeed before a function that needs it is called.

    packing, sft   documents -> shards of tokens -> samples of one length
    mix            global sample number -> (source, row)
    schedule       step -> learning rate
    model          base model, tokenizer, loading
    loop           the training loop; checkpoint, export beside it
    launch         the processes of one node
"""
