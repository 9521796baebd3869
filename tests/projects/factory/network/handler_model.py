from model import MyNetwork

def init_function(in_dim, layer_dims):
    model = MyNetwork(in_dim, layer_dims)
    return model
